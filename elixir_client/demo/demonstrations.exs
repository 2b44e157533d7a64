# Mails that somebody has sorted by hand: the program learns from them what is meant.
products = ["Lumo 3 espresso machine", "Lumo Mini", "Grano coffee grinder", "Cleaning tablets"]

[
  %{
    inputs: %{
      subject: "Charged twice for order 88120",
      body:
        "Good morning, my card was charged twice for the same Grano grinder on Monday. " <>
          "Please refund one of the two payments of 149 euros and send me a corrected invoice.",
      products: products
    },
    outputs: %{
      category: :billing,
      urgency: 0.5,
      phrases: ["charged twice", "refund one of the two payments", "corrected invoice"],
      summary: "A customer was charged twice for a grinder and asks for a refund."
    }
  },
  %{
    inputs: %{
      subject: "Sparks from the machine",
      body:
        "When I switched on the espresso machine this morning there were sparks near the plug and " <>
          "a smell of burning. I have unplugged it and will not use it. It leaks as well. Somebody " <>
          "should look at this today; I expect a replacement.",
      products: products
    },
    outputs: %{
      category: :defect,
      urgency: 0.95,
      phrases: ["sparks near the plug", "smell of burning", "expect a replacement"],
      summary: "A machine that sparks and smells of burning is unplugged and should be replaced."
    }
  },
  %{
    inputs: %{
      subject: "Grinder is stuck",
      body:
        "The grinder that came last week makes a humming noise but the burrs do not turn. I have " <>
          "cleaned it twice. Can it be repaired under warranty? There is no hurry, I have another.",
      products: products
    },
    outputs: %{
      category: :defect,
      urgency: 0.4,
      phrases: ["burrs do not turn", "repaired under warranty", "no hurry"],
      summary: "A new grinder no longer turns and should be repaired under warranty."
    }
  },
  %{
    inputs: %{
      subject: "Where is my parcel?",
      body:
        "I ordered cleaning tablets ten days ago, and the tracking page has said that the courier " <>
          "has the parcel since Tuesday. When will it be delivered?",
      products: products
    },
    outputs: %{
      category: :delivery,
      urgency: 0.3,
      phrases: ["ordered ten days ago", "courier has the parcel", "when will it be delivered"],
      summary: "A parcel with cleaning tablets is late and its customer asks where it is."
    }
  },
  %{
    inputs: %{
      subject: "Which grinder goes with the Lumo Mini?",
      body:
        "I own a Lumo Mini and am thinking of buying a grinder. Is the Grano fine enough for " <>
          "espresso, and does it fit under a shelf of 38 centimetres?",
      products: products
    },
    outputs: %{
      category: :question,
      urgency: 0.1,
      phrases: ["thinking of buying a grinder", "fine enough for espresso", "fit under a shelf"],
      summary: "The owner of a Lumo Mini asks whether the Grano grinder suits it."
    }
  }
]

# What the support team answered before: demonstrations for the prompt, and all that demo/knn knows.
shop = ["kettle", "toaster", "coffee mill", "scales"]

for {subject, body, category, urgency, phrases, reply} <- [
      {"Where is my parcel?",
       "I ordered the scales ten days ago and the tracking page has not moved since Monday. " <>
         "Could you find out where the parcel is?", :delivery, 0.5,
       ["ordered ten days ago", "tracking has not moved"],
       "I am sorry that your parcel is late; I have asked the carrier where it is."},
      {"Toaster sparks",
       "The toaster that I bought last month gives off sparks and a burnt smell when I push the " <>
         "lever down. I have unplugged it. I need a replacement or my money back.", :defect, 0.95,
       ["gives off sparks", "unplugged it", "replacement or my money back"],
       "Please leave it unplugged: a replacement is on its way to you today."},
      {"Charged twice",
       "My card was charged twice for order 28113. Please refund one of the two payments.",
       :billing, 0.6, ["charged twice", "refund one of the two payments"],
       "You are right that we charged you twice, and the second payment is refunded."},
      {"Which burrs?",
       "Does the coffee mill have steel or ceramic burrs, and can I buy them on their own?",
       :question, 0.1, ["steel or ceramic burrs", "buy them on their own"],
       "The mill has steel burrs, and we sell them on their own."},
      {"Thank you!",
       "The kettle arrived a day early and is just what I hoped for. Your packing was lovely.",
       :praise, 0.05, ["arrived a day early", "just what I hoped for"],
       "Thank you for writing, that made our morning!"},
      {"Mill stopped working",
       "After three weeks the coffee mill does not start any more, it only hums. How can I send " <>
         "it back for repair?", :defect, 0.6,
       ["does not start any more", "send it back for repair"],
       "I am sorry about the mill; here is a label to send it back free of charge."}
    ] do
  %{
    inputs: %{subject: subject, body: body, products: shop},
    outputs: %{category: category, urgency: urgency, phrases: phrases, reply: reply}
  }
end

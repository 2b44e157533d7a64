fields = [input: 2, input: 3, output: 2, output: 3, field: 2, field: 3, signature: 1]

[
  inputs: ["{mix,.formatter}.exs", "{lib,test,demo}/**/*.{ex,exs}"],
  locals_without_parens: fields,
  export: [locals_without_parens: fields]
]

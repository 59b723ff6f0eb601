"""Language models: their answers as streams that can be stopped and resumed."""

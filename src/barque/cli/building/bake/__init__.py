"""`bake`: builds of many targets that files in HCL, JSON or Compose's form describe.

hcl, expressions, functions    the language: text to trees, trees to values
definitions                    files to variables, functions, groups and targets
compose                        Compose files to targets
targets                        inheritance, matrix, groups, overrides; the printed form
command                        the verb
"""

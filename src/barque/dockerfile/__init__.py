"""Pure: the Dockerfile language: lines, words, instructions, ignore files, checks. No I/O.

    text --lines.parse--> Line --stages.parse--> Stage of Instruction --expand--> Instruction

A frontend reads the text, calls `stages.parse`, and walks the stages; what a variable is worth where is
its business (see `scope`), how a word is expanded is `words`'.
"""

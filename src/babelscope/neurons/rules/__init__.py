"""The rules by which neurons are given to languages: one file each, whose name is the rule's."""

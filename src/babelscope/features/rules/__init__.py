"""The rules by which features are given to languages: one file each, whose name is the rule's."""

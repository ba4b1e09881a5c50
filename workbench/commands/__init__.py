"""The commands as functions, by what they are about; :mod:`workbench.cli` has them all. Each imports what it needs."""

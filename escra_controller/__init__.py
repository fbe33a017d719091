"""The controller: one ledger per application, the formula, and the people's tools."""

"""The paper's figures as plain data: one table, `catalogue`, of functions from records."""

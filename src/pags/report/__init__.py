"""Records to tables, figures and one page. Nothing here computes a result."""

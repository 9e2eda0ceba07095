"""The paper's figures as plain data, one file a figure; `catalogue` lists them, `pags.report` draws them."""

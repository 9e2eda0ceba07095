"""The networks of EDM (Karras et al. 2022), written here, and the files that were published with them."""

"""From labelled scans to trained networks."""

"""The figures, one file each: static SVG whose colours are the page's own CSS variables."""

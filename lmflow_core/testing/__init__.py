"""The kit for authors of plugins: contracts their plugins are held to, fixtures, and what the project's tests share."""

"""The report of a deployment as one HTML page: views of what a summary says, and the templates that show them."""

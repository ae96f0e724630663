"""Options: their types, and the groups that several commands share."""

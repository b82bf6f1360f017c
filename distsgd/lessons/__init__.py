"""What teaches: pictures, circuits, losses, coordinate search, two-stage sampling."""

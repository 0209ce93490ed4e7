"""What a method may use and change."""

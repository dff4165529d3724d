"""What screens are made of. A widget knows how to look; it meets neither the engine nor another screen."""

"""What the headless command says: lines, a bar, JSON events while it runs; tables and pages about journals after it."""

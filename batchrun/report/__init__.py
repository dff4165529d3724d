"""The headless interface: lines, a bar or JSON events; tables and pages about journals."""

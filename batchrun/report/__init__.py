"""The headless interface: lines, a bar or JSON events during a run; tables and pages about journals."""

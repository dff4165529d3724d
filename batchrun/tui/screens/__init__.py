"""The screens; the styles of each are beside it."""

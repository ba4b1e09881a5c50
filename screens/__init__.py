"""What a person sees: every face reads run folders and never calls a step."""

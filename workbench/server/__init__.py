"""The inference server that runs inside the image. Imports only what the image carries."""

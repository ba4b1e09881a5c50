"""The container engine: Docker, or Podman through the socket that speaks Docker's protocol."""

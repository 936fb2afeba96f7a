"""What several tests use: a running service, a raw client on a serial line."""

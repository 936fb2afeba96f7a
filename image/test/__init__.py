"""Tests that boot the image in an emulator: `make image-test`."""

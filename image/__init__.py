"""The appliance: an image to flash, made of lists and files, and the tests that boot it."""

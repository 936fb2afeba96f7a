"""From values to Modbus words and back: codec, register maps, register images."""

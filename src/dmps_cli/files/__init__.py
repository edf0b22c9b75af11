"""Files: inputs, pictures, measurements, downloads; written whole or not at all."""

"""Sets that are asked about: equations, level sets, images; whether gradient flow leaves them."""

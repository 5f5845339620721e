"""The ReLU kernel on the sphere: closed forms, harmonics, quadrature."""

"""What a monitor measures: nearest manifolds, numbers of classes, condensation, silent units."""

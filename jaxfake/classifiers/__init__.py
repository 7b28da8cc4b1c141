"""How labels are learned: neural networks, scikit-learn's, reservoirs."""

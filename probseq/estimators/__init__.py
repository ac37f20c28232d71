"""The scikit-learn face: estimators that read data, fit a model and label its answers."""

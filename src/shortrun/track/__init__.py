"""Experiment trackers: TensorBoard, trackio, Weights & Biases, MLflow."""

"""What `deploy` hands to the device that builds TensorRT engines: a folder that is checked before it is read."""

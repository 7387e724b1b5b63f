"""The pipeline: producer, processors, batchers, batch processors, acknowledger (hinge 2 is the Message)."""

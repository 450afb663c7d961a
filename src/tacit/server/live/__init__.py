"""What a serving process holds and does: model, engine, recalls, answers, feed and metrics."""

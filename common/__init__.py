"""What the stages share. Nothing here teaches an idea before a stage script has taught it."""

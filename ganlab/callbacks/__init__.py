"""What happens besides the game, when the clock says."""

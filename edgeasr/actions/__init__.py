"""What happens when somebody has said something: programs are run, web hooks called, messages published."""

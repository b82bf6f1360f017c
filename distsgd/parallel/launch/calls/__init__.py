"""What is asked of Ray, how long it is waited for, and its errors as ours."""

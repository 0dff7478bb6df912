"""What turns a photo and a question into bits, and bits into a picture.

Nothing heavy is imported here: a machine with a radio alone never loads torch.
"""

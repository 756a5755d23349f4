"""`producer explore`, `producer replay`: every order of a program's steps, and one of them forced on a real place."""

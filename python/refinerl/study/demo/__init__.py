"""The demo: two arms of the miniature side by side, watched live, and a closing picture.

command  both runs from start to end, and the exit code
arm      an arm of the demo, read from its run's folder while it grows
view     the live view of both arms, and its plain lines
picture  held-out success over steps, drawn in text
closing  the picture, the table "What you saw", one correction, the reports and the next commands
"""

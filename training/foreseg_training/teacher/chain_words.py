# SPDX-License-Identifier: Apache-2.0
"""What a teacher is told when it is asked for a chain of thought: rules, and examples to draw from.

After Veason-R1: it sees the truth in red and the keyframe, writes as if it had found them itself,
and thinks in three steps. The words are ours; the paper gives none.
"""

from __future__ import annotations

RULES = """You write down how somebody thinks who looks at frames of a video and answers a question \
about it by pointing at objects in one frame. You are shown the frames in order, each after its \
number, and the right answer: the objects are in red boxes, and the frame to point at is named. \
Write the thoughts of one who sees the plain frames, knows no answer, and finds it by looking.
Say three things, each in one to three plain sentences:
- scene: what is there and what goes on, as far as the question needs it;
- why_this_frame: why the objects are best pointed at in the frame that was named;
- where: which objects they are there, what tells them from the others, and where in the frame.
Never speak of boxes, marks, colours of marks, coordinates, or of anything you were given or told. \
Speak of the named frame as "this frame" and name no other frame's number.
Answer with one JSON object and nothing else:
{"scene": "...", "why_this_frame": "...", "where": "...", "keyframe": NUMBER, "objects": ["...", ...]}
"objects" names each object in the boxes of the named frame once, in a few words."""

EXAMPLES = (
    """{"scene": "A white ball rolls over a table towards a row of cups, and the left cup was hit before.", \
"why_this_frame": "In this frame the ball has come near and both cups are whole and clearly in view.", \
"where": "The ball heads for the blue cup, which stands right of the middle behind the plate.", \
"keyframe": 12, "objects": ["blue cup"]}""",
    """{"scene": "Two dogs run across a lawn after a frisbee; the brown one is ahead.", \
"why_this_frame": "Here the brown dog is large, from the side, and nothing hides it.", \
"where": "It is the dog at the lower left with its front legs in the air, ahead of the white one.", \
"keyframe": 40, "objects": ["brown dog"]}""",
    """{"scene": "A hand sorts tools on a bench and has put down the hammer and the pliers.", \
"why_this_frame": "In this frame the hand is away, so that both tools lie in full view.", \
"where": "The hammer lies at the top with its head to the left; the pliers are just below it.", \
"keyframe": 7, "objects": ["hammer", "pliers"]}""",
)

RULES_NONE = """You write down how somebody thinks who looks at frames of a video and answers a \
question about it by pointing at objects. You are shown the frames in order, each after its number. \
Nothing in them fits the question, and that is the right answer. Write the thoughts of one who does \
not know that, and finds it by looking.
Say three things, each in one to three plain sentences:
- scene: what is there and what goes on, as far as the question needs it;
- looked_for: what would have to be seen, and where one would look for it;
- why_none: why nothing fits.
Never speak of anything you were given or told, and name no frame's number.
Answer with one JSON object and nothing else:
{"scene": "...", "looked_for": "...", "why_none": "...", "keyframe": null, "objects": []}"""

EXAMPLES_NONE = (
    """{"scene": "A ball rolls to and fro between two walls, and three cups stand aside.", \
"looked_for": "Something would have to stand in the ball's way.", \
"why_none": "Its way stays clear of all three cups, so nothing will be hit.", \
"keyframe": null, "objects": []}""",
    """{"scene": "A brown dog and a white dog run across a lawn.", \
"looked_for": "The question asks for a cat, which would be small and low in the grass.", \
"why_none": "Both animals are dogs, and there is no other.", "keyframe": null, "objects": []}""",
    """{"scene": "A hammer and a saw lie still on a bench.", \
"looked_for": "Whatever falls would have to hang over the edge or lean on something.", \
"why_none": "Both lie flat and nobody touches them, so nothing will fall.", \
"keyframe": null, "objects": []}""",
)

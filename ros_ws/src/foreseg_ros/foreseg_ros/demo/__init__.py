# SPDX-License-Identifier: Apache-2.0
"""`make demo`: camera, node and client as three processes over real ROS 2, measured by the client.

Part one streams a simulated scene whose future is known, so that answers and masks can be judged.
Part two streams a real video: an object is added by a box, then a question is asked.
"""

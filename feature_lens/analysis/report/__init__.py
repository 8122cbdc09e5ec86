"""The report card of a run: one HTML file that needs nothing from outside, made for paper.

page       the whole file
sections   its parts, each from the run to HTML
charts     curves, bars, a matrix and a graph as SVG
pieces     tables, figures, pictures; the one place where text becomes HTML
"""

"""The Streamlit app that draws a run: it calls the store and the analysis only."""
